import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[3]
PACKAGES = ("bentos", "cli", "contracts", "features", "monitoring", "registry", "training")
PROGRAM = """
from features import duck
found = duck.connect(threads=1).execute("SELECT current_setting('enable_progress_bar'), current_setting('TimeZone')")
print(*found.fetchone())
"""


def test_it_draws_no_bar_where_it_takes_a_process_for_interactive():
    """One without a main file, as the processes of the fits are: the bar stood in front of the JSON of `train`."""
    told = subprocess.run([sys.executable, "-c", PROGRAM], cwd=ROOT, capture_output=True, text=True, check=True)
    assert told.stdout.split() == ["False", "UTC"]


def test_nobody_opens_it_in_another_way():
    sources = [path for package in PACKAGES for path in (ROOT / package).rglob("*.py")]
    assert [str(path.relative_to(ROOT)) for path in sources if "duckdb.connect(" in path.read_text()] == [
        "features/duck.py"
    ]
