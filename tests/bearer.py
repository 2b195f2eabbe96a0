"""The token of a test's server, for schemathesis."""

from tests.serving_processes import TOKEN


class Bearer:
    """`document.auth()(Bearer)`. Also lets schemathesis see that nothing is open without the token."""

    def get(self, case, context):
        return f"Bearer {TOKEN}"

    def set(self, case, data, context):
        case.headers["authorization"] = data
