# make search   evolve networks on the handwritten digits, from nothing
# make search PICTURES=PATH   on pictures of your own: a folder with one folder a class, or what docs/images.md has
# make test     run the tests of minutes, while you work
# make test-all run all tests
# make lint     check style, format and types
# make clean    remove the virtual environment; run folders stay
#
# Each makes its own virtual environment in .venv first, and is quick to find that it is there.
# To choose the interpreter (after `make clean` if there is a .venv): make test PYTHON=/path/to/python3.12

VENV := .venv
PICTURES :=
SEARCH = $(if $(PICTURES),-m experiments.images --data-dir '$(PICTURES)',-m experiments.digits)

IS_RECENT := import sys; assert sys.version_info >= (3, 11)
# A name on the PATH can be a shim with no interpreter behind it, so each candidate is run.
PYTHON ?= $(shell for name in python3.12 python3.13 python3.11 python3; do \
	if $$name -c '$(IS_RECENT)' 2>/dev/null; then echo $$name; break; fi; done)

.PHONY: search test test-all lint clean
# Two installations into one environment would disturb each other.
.NOTPARALLEL:

search: $(VENV)/installed
	$(VENV)/bin/python $(SEARCH)

test: SELECTED := -m 'not slow' --hypothesis-profile quick
test test-all: $(VENV)/installed-dev
	$(VENV)/bin/python -m pytest -n logical --dist worksteal $(SELECTED) $(PYTEST_ARGS)

lint: $(VENV)/installed-dev
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/mypy

clean:
	rm -rf $(VENV)

# Not compiled: that is half of the installation, and of what it compiles little is ever imported.
$(VENV)/installed: REQUIREMENT := .
$(VENV)/installed-dev: REQUIREMENT := .[dev]
$(VENV)/installed $(VENV)/installed-dev: setup.cfg pyproject.toml
	@python='$(PYTHON)'; "$${python:-false}" -c '$(IS_RECENT)' 2>/dev/null || { \
	echo "No Python 3.11 or later (tried $${python:-python3.12, python3.13, python3.11, python3});" \
	"install one, or name it: make $(MAKECMDGOALS) PYTHON=/path/to/python" >&2; exit 2; }; \
	echo "Installing eigen_jax into $(VENV) with $$("$$python" --version); a minute or two the first time"; \
	"$$python" -m venv $(VENV)
	@$(VENV)/bin/python -m pip install --quiet --quiet --disable-pip-version-check --no-compile --editable '$(REQUIREMENT)'
	@touch $(VENV)/installed $@
