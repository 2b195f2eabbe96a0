"""`streamrec access …`: operators' tokens with roles, and consumers' keys."""

from datetime import UTC, datetime
from typing import Annotated, Any

import typer

from cli.control import DryRun, Home, Token, now_us, open_control
from cli.output import Json, emit, err, errors_end_well, out, table
from contracts.errors import UsageError

app = typer.Typer(no_args_is_help=True)
CONSUMER = "consumer"


@app.command()
@errors_end_well
def create(
    name: Annotated[str, typer.Argument(help="Of the person or service.")],
    role: Annotated[str, typer.Option(help="viewer, releaser or admin; or consumer, for who calls the gateway.")],
    rate: Annotated[float | None, typer.Option(min=0.001, help="Of a consumer: requests a second.")] = None,
    burst: Annotated[int, typer.Option(min=1, help="Of a consumer: requests at once.")] = 100,
    token: Token = None,
    dry_run: DryRun = False,
    home: Home = None,
    as_json: Json = False,
) -> None:
    """Make a token (operators) or a key (consumers). It is shown this once; only its digest is kept.

    Example: `streamrec access create alice --role admin`

    While no token exists, whoever may open the control database is admin; the first token must be an admin's. While no
    consumer has a key, the gateway asks for none.
    """
    from registry import access, consumers

    _, store, token = open_control(home, token)
    at_us = now_us()
    actor = access.authorise(store, token, "admin", action="access.create", subject=name, now_us=at_us)
    if role != CONSUMER and rate is not None:
        raise UsageError("--rate is of a consumer's key")
    document: dict[str, Any] = {"name": name, "role": role}
    if dry_run:
        emit({**document, "dry_run": True}, as_json=as_json)
        return
    if role == CONSUMER:
        secret = consumers.create(store, actor, name, rate, burst, at_us)
        document |= {"key": secret, "rate_per_s": rate, "burst": burst}
    else:
        secret = access.create_token(store, actor, name, role, at_us)  # type: ignore[arg-type]  # it checks the role
        document["token"] = secret

    def human() -> None:
        out.print(secret, soft_wrap=True)
        use = "Authorization: Bearer KEY" if role == CONSUMER else "STREAMREC_OPERATOR_TOKEN"
        err.print(f"  of {name} ({role}); it is not shown again. Use: {use}", markup=False)

    emit(document, as_json=as_json, human=human)


@app.command("list")
@errors_end_well
def list_(token: Token = None, home: Home = None, as_json: Json = False) -> None:
    """Tokens and consumers' keys, by name and role; never the secrets.

    Example: `streamrec access list`
    """
    from registry import access

    _, store, token = open_control(home, token)
    access.authorise(store, token, "viewer", action="access.list", subject="-", now_us=now_us())
    rows: list[dict[str, Any]] = [
        {"name": t.name, "role": t.role, "created": _time(t.created_us), "by": t.created_by}
        for t in store.tokens()
        if t.revoked_us is None
    ]
    rows += [
        {"name": c.name, "role": CONSUMER, "rate_per_s": c.rate_per_s, "burst": c.burst} for c in store.load().consumers
    ]

    def human() -> None:
        columns = ["name", "role", "created", "by", "rate_per_s", "burst"]
        table("access", columns, [[row.get(column) for column in columns] for row in rows])
        if not any(row["role"] != CONSUMER for row in rows):
            out.print("no token yet: whoever may open the control database is admin")

    emit({"access": rows}, as_json=as_json, human=human)


@app.command()
@errors_end_well
def revoke(
    name: Annotated[str, typer.Argument(help="Of a token or a consumer's key.")],
    token: Token = None,
    dry_run: DryRun = False,
    home: Home = None,
    as_json: Json = False,
) -> None:
    """End a token or a consumer's key. Gateways follow within 2 s.

    Example: `streamrec access revoke alice`
    """
    from registry import access, consumers

    _, store, token = open_control(home, token)
    at_us = now_us()
    actor = access.authorise(store, token, "admin", action="access.revoke", subject=name, now_us=at_us)
    consumer = any(c.name == name for c in store.load().consumers)
    document = {"name": name, "role": CONSUMER if consumer else "token", "revoked": not dry_run}
    if not dry_run:
        if consumer:
            consumers.revoke(store, actor, name, at_us)
        else:
            access.revoke_token(store, actor, name, at_us)
    emit(document, as_json=as_json)


def _time(at_us: int) -> str:
    return datetime.fromtimestamp(at_us / 1e6, UTC).isoformat(timespec="seconds")
