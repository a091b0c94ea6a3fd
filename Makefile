# Targets: `make help`.  Variables: PYTHON, PYTEST_ARGS, ROWS, TABLE, RUNS, JOBS, MINUTES, BENCH, MUTANTS, SEED, MODULES,
# TARGET, SECONDS, PREFIX, EXTRAS, DESTDIR.

PYTHON = python3
PREFIX = /usr/local
EXTRAS =
DESTDIR =
PYTEST_ARGS =
ROWS =
TABLE =
RUNS = 5
JOBS = 10000
MINUTES = 20
MUTANTS = 600
SEED = 1
MODULES =
TARGET =
SECONDS = 10
BENCH = $(sort $(wildcard benchmarks/bench_*.py))

VENV = .venv
BIN = $(VENV)/bin
STAMP = $(VENV)/made
OLD = .venv-pynacl15
COMMANDS = $(notdir $(wildcard bin/*))
PAGES = $(wildcard man/*.[1-9])
HOME_DIRECTORY = $(PREFIX)/lib/cexec-cluster
ISOLATED = tests/isolated.sh
export PIP_DISABLE_PIP_VERSION_CHECK = 1

help:
	@echo 'make test       the tests, in a network namespace of their own; PYTEST_ARGS="-k race"'
	@echo 'make campaign   the tests that take minutes each: full numbers; PYTEST_ARGS as above'
	@echo 'make faults     the fault campaign; ROWS=regex chooses, TABLE=docs/reliability.md writes the results there'
	@echo 'make soak       a farm in which everything fails in turn: at least JOBS=10000, MINUTES=20'
	@echo 'make busy       the tests of networks and of cmap, beside two busy loops; RUNS=5 times, PYTEST_ARGS as above'
	@echo 'make pythons    a part of the tests with each Python from 3.11 to 3.13 that is here; PYTEST_ARGS chooses it'
	@echo 'make mutants    mutates the protocol, runs its tests: MUTANTS=600 of SEED=1, MODULES=session chooses'
	@echo 'make fuzz       each parser under libFuzzer for SECONDS=10; TARGET=regex chooses'
	@echo 'make check      ruff, mypy, the import contracts, the man pages'
	@echo 'make proto      writes the code of proto/cexec/v1/cexec.proto'
	@echo 'make demo       a tour on this machine, in a virtual environment of its own'
	@echo 'make bench      the benchmarks; BENCH=benchmarks/bench_one.py for one of them'
	@echo 'make install    into $$(PREFIX)/lib/cexec-cluster, with links in bin and the man pages; PREFIX=/usr/local EXTRAS=gate DESTDIR='
	@echo 'make uninstall  takes it away again'
	@echo 'make man-lint   the linter on the man pages'
	@echo 'make clean      removes what these have made here'

# Editable, so it is made anew only when the packaging changes.  Modules are compiled when they are first read: most of
# those of scikit-learn and the like never are.
$(STAMP): pyproject.toml $(wildcard bin/*)
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --no-compile --editable '.[test]'
	touch $@

# The libsodium of other people's machines; when it cannot be had its tests are skipped.
$(OLD)/made:
	$(PYTHON) -m venv $(OLD) && $(OLD)/bin/python -m pip install --quiet 'PyNaCl<1.6' click jinja2 psutil rich zeroconf && touch $@ \
		|| { rm -rf $(OLD); echo 'make: PyNaCl 1.5 cannot be installed here' >&2; }

test: $(STAMP) $(OLD)/made
	PATH="$(CURDIR)/$(BIN):$$PATH" $(ISOLATED) tests/run.sh $(BIN)/python $(PYTEST_ARGS)

campaign: $(STAMP) $(OLD)/made
	PATH="$(CURDIR)/$(BIN):$$PATH" $(ISOLATED) $(BIN)/python -m pytest -m campaign --durations=0 $(PYTEST_ARGS)

faults: $(STAMP)
	PATH="$(CURDIR)/$(BIN):$$PATH" $(ISOLATED) unshare --mount --propagation private \
		$(BIN)/python -m tests.faults --rows '$(ROWS)' $(if $(TABLE),--table $(TABLE))

soak: $(STAMP)
	PATH="$(CURDIR)/$(BIN):$$PATH" $(ISOLATED) $(BIN)/python -m tests.faults.soak --jobs $(JOBS) --minutes $(MINUTES)

busy: $(STAMP) $(OLD)/made
	PATH="$(CURDIR)/$(BIN):$$PATH" $(ISOLATED) tests/busy.sh $(BIN)/python $(RUNS) $(PYTEST_ARGS)

# Only pure modules are mutated and their tests run, which do no input and output.
mutants: $(STAMP)
	$(BIN)/python -m tests.mutants --mutants '$(MUTANTS)' --seed '$(SEED)' --modules '$(MODULES)'

$(VENV)/fuzzer: $(STAMP)
	$(BIN)/python -m pip install --quiet --editable '.[fuzz]' && touch $@ || echo 'make: no atheris here' >&2

fuzz: $(STAMP) $(VENV)/fuzzer
	PATH="$(CURDIR)/$(BIN):$$PATH" $(ISOLATED) $(BIN)/python -m tests.fuzz --target '$(TARGET)' --seconds '$(SECONDS)'

check: $(STAMP) man-lint
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-cache --no-logo

man-lint:
	@test -n "$(PAGES)" || { echo 'man-lint: there are no man pages' >&2; exit 1; }
	@if command -v mandoc >/dev/null; then set -x; mandoc -T lint -W warning $(PAGES); \
	elif command -v groff >/dev/null; then set -x; groff -ww -mandoc -T utf8 -z $(PAGES); \
	else echo 'man-lint: SKIPPED for want of mandoc or groff' >&2; test "$$CI" != true; fi

proto: $(STAMP)
	$(BIN)/python proto/generate.py .

demo:
	PYTHON=$(PYTHON) examples/demo.sh

# The peers of `cmap`; what cannot be had is told by the benchmark that wants it.
$(VENV)/peers: $(STAMP)
	$(BIN)/python -m pip install --quiet --editable '.[bench]' && touch $@ || echo 'make: no HyperQueue and Dask here' >&2

bench: $(STAMP) $(VENV)/peers
	@test -n "$(BENCH)" || { echo 'bench: there are no benchmarks' >&2; exit 1; }
	@for script in $(BENCH); do \
		echo "# $$script"; PATH="$(CURDIR)/$(BIN):$$PATH" $(ISOLATED) $(BIN)/python $$script || exit 1; done

pythons:
	tests/pythons.sh $(PYTEST_ARGS)

# Links and first lines of scripts contain it, and would lead elsewhere from each directory if it were relative.
absolute:
	@case '$(PREFIX)' in *[[:space:]]*|[!/]*|'') \
		echo "make: PREFIX is '$(PREFIX)', but must be an absolute path without spaces, such as /usr/local" >&2; exit 1;; esac

# A virtual environment of its own: nothing of the system's Python is touched, and nothing of it touches cexec.
install: absolute
	rm -rf build
	$(PYTHON) -m venv --clear $(DESTDIR)$(HOME_DIRECTORY)
	$(DESTDIR)$(HOME_DIRECTORY)/bin/python -m pip install --quiet '.$(if $(EXTRAS),[$(EXTRAS)])'
	$(DESTDIR)$(HOME_DIRECTORY)/bin/python -m pip uninstall --quiet --yes setuptools pip
	$(PYTHON) install_launchers.py '$(HOME_DIRECTORY)' '$(DESTDIR)' $(COMMANDS)
	mkdir -p $(DESTDIR)$(PREFIX)/bin $(DESTDIR)$(PREFIX)/share/man/man1
	for name in $(COMMANDS); do \
		ln -sf ../lib/cexec-cluster/bin/$$name $(DESTDIR)$(PREFIX)/bin/$$name || exit 1; done
	for page in $(notdir $(PAGES)); do \
		install -m 644 man/$$page $(DESTDIR)$(PREFIX)/share/man/man1/$$page || exit 1; done

uninstall: absolute
	rm -rf $(DESTDIR)$(HOME_DIRECTORY)
	rm -f $(COMMANDS:%=$(DESTDIR)$(PREFIX)/bin/%)
	rm -f $(PAGES:man/%=$(DESTDIR)$(PREFIX)/share/man/man1/%)

clean:
	rm -rf $(VENV) $(OLD) .venv-python3.* build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis
	find cexec tests benchmarks examples -name __pycache__ -type d -prune -exec rm -rf {} +

.PHONY: help test campaign faults soak busy pythons absolute mutants fuzz check man-lint proto demo bench install uninstall clean
