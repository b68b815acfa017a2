# Shortcuts for the commands in CONTRIBUTING.md. `just` alone lists them.

set windows-shell := ["powershell.exe", "-NoLogo", "-Command"]

bin := if os_family() == "windows" { ".venv/Scripts" } else { ".venv/bin" }

_list:
    @just --list --unsorted

# Make the environment .venv with everything a contributor needs.
[unix]
setup python="python3":
    {{ python }} -m venv .venv
    {{ bin }}/python -m pip install -e '.[dev]'
    {{ bin }}/python -m pip install -e ./plugins/leukokit-classic -e ./plugins/leukokit-zoo
    {{ bin }}/pre-commit install

# Make the environment .venv with everything a contributor needs.
[windows]
setup python="python":
    {{ python }} -m venv .venv
    {{ bin }}/python -m pip install -e '.[dev]'
    {{ bin }}/python -m pip install -e ./plugins/leukokit-classic -e ./plugins/leukokit-zoo
    {{ bin }}/pre-commit install

# Run the tests, or some of them: just test tests/writers -x
test *arguments:
    {{ bin }}/python -m pytest {{ arguments }}

# Run all tests in two processes and report how much of the package they cover.
coverage *arguments:
    {{ bin }}/python -m pytest -n 2 --cov --cov-report=term {{ arguments }}

# Check style, declared dependencies and architecture.
lint:
    {{ bin }}/ruff format --check .
    {{ bin }}/ruff check .
    {{ bin }}/deptry leukokit
    {{ bin }}/lint-imports
    {{ bin }}/python tools/architecture.py --check

# Mend what can be mended automatically.
fix:
    {{ bin }}/ruff check --fix .
    {{ bin }}/ruff format .

# Check types.
types:
    {{ bin }}/mypy

# Build the documentation; it lands in site/.
docs:
    {{ bin }}/mkdocs build --strict

# Serve the documentation while you write.
serve:
    {{ bin }}/mkdocs serve

# Run benchmarks, or list them: just bench cold_start graphs
bench *names:
    {{ bin }}/python benchmarks/run.py {{ names }}
