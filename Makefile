# "make" alone says what there is. Needs Python 3.11 or later; all else is fetched into .venv and .cache.

PYTHON ?= python3
BIN = .venv/bin
# Processes that share the tests of one run: most tests of daemons wait.
JOBS ?= 2
RUN = $(BIN)/python tests/run.py --jobs $(JOBS)

.PHONY: help venv demo engines mysql-engine nginx-engine prometheus chromium test test-page \
    test-mysql test-quick test-lowest lint format lock audit bench faults faults-quick clean

help:
	@echo 'make demo        run Dalga with an example endpoint and watch the POSTs arrive'
	@echo 'make test        all tests, on SQLite and a private MariaDB'
	@echo 'make test-mysql  all tests of a database, on a private MySQL'
	@echo 'make test-quick  all tests that need no database server'
	@echo 'make test-page   those of pages in a browser, which are among these'
	@echo 'make test-lowest  those of what libraries do, with the lowest versions of these'
	@echo 'make lint        ruff, mypy and bandit'
	@echo 'make audit       whether the libraries in the lock have known weaknesses'
	@echo 'make lock        write the locks of the libraries anew'
	@echo 'make format      let ruff lay out the code'
	@echo 'make bench       measure: all cases, or one with CASE=drain'
	@echo 'make faults      break things, and check the promises; one scenario with SCENARIO=client'
	@echo 'make faults-quick  the same, short'
	@echo 'make venv        only set up the virtual environment, .venv'
	@echo 'make engines     only fetch MariaDB and Galera for the tests, into .cache'
	@echo 'make prometheus  only fetch Prometheus for the tests, into .cache'
	@echo 'make chromium    only fetch Chromium for the tests, into .cache'
	@echo 'make clean       remove what these have made'

venv: .venv/made

# editable_mode=compat: other editable installs hide the twistd plugin. All that is fetched is in the
# lock, setuptools too, which builds.
.venv/made: pyproject.toml setup.py requirements-dev.lock
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
	    echo 'Dalga needs Python 3.11 or later as $(PYTHON); name another one with: make PYTHON=python3.12' >&2; \
	    exit 1; }
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || { \
	    echo 'Python has no venv module here; install it with: apt install python3-venv' >&2; \
	    exit 1; }
	rm -rf .venv
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes \
	    -r requirements-dev.lock
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation \
	    --config-settings editable_mode=compat --editable .
	touch $@

# Programs that neither Dalga nor its tests need.
TOOLS = .venv-tools

$(TOOLS)/made:
	rm -rf $(TOOLS)
	$(PYTHON) -m venv $(TOOLS)
	$(TOOLS)/bin/python -m pip install --quiet --disable-pip-version-check 'uv>=0.13,<1' 'pip-audit>=2.10,<3'
	touch $@

# Write the locks anew, for each Python from 3.11 on and each platform. Versions that stand in them stay,
# unless pyproject.toml forbids them: for the newest of all, make lock LOCK=--upgrade.
COMPILE = $(TOOLS)/bin/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes \
    --custom-compile-command 'make lock' $(LOCK) pyproject.toml

lock: $(TOOLS)/made
	$(COMPILE) --extra dev --output-file requirements-dev.lock
	$(COMPILE) --constraints requirements-dev.lock --output-file requirements.lock

# Whether there is news of weaknesses in what the lock has.
audit: $(TOOLS)/made
	@$(TOOLS)/bin/python tests/audit.py $(TOOLS)/bin/pip-audit requirements-dev.lock

demo: venv
	@$(BIN)/python demo/demo.py

# Both do nothing where the server is there and runs.
engines: venv
	$(BIN)/python tests/servers/fetch.py mariadb .cache/mariadb

mysql-engine: venv
	$(BIN)/python tests/servers/fetch.py mysql .cache/mysql

test: engines prometheus chromium
	@DALGA_TEST_ENGINES=sqlite,mariadb $(RUN)

test-mysql: mysql-engine
	@DALGA_TEST_ENGINES=mysql $(RUN) --engines-only

test-quick: prometheus chromium
	@DALGA_TEST_ENGINES=sqlite $(RUN)

test-page: chromium
	@DALGA_TEST_ENGINES=sqlite $(RUN) tests.test_browser

# The modules in which the most of what Dalga asks of a library is tried, PyMySQL's on a MariaDB.
# Daemons are not among them: they would be those of .venv.
LOWEST = .venv-lowest
LOWEST_TESTS = trust lookup answer answer_fuzz wire endpoint config cron duration jobs schedule store \
    store_connections web_api web_parameters reading zone log destination exposition signature tunnel

test-lowest: $(LOWEST)/made engines
	@DALGA_TEST_ENGINES=sqlite,mariadb $(LOWEST)/bin/python tests/run.py $(LOWEST_TESTS:%=tests.test_%)

$(LOWEST)/made: pyproject.toml tests/lowest.py .venv/made
	rm -rf $(LOWEST)
	$(PYTHON) -m venv $(LOWEST)
	$(BIN)/python tests/lowest.py >$(LOWEST)/lowest.txt
	$(LOWEST)/bin/python -m pip install --quiet --disable-pip-version-check -r $(LOWEST)/lowest.txt
	touch $@

lint: venv
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy --strict dalga faults bench tests
	$(BIN)/bandit --quiet --recursive --configfile pyproject.toml dalga twisted demo

format: venv
	$(BIN)/ruff check --fix-only --quiet .
	$(BIN)/ruff format .

prometheus: venv
	$(BIN)/python tests/servers/fetch.py prometheus .cache/prometheus

chromium: venv
	$(BIN)/python tests/servers/fetch.py chromium .cache/chromium

nginx-engine: venv
	$(BIN)/python tests/servers/fetch.py nginx .cache/nginx

# One case: make bench CASE=drain. Options: make bench BENCH='--runs 5'
bench: engines nginx-engine
	@$(BIN)/python -m bench $(CASE) $(BENCH)

# One scenario: make faults SCENARIO=rolling-restart SECONDS=30 SEED=7; on MySQL: ENGINE=mysql.
ENGINE ?= mariadb
FAULTS_ENGINE = $(if $(filter mysql,$(ENGINE)),mysql-engine,engines)
faults: $(FAULTS_ENGINE)
	@$(BIN)/python -m faults $(SCENARIO) --engine $(ENGINE) $(if $(SECONDS),--seconds $(SECONDS)) \
	    $(if $(SEED),--seed $(SEED)) $(FAULTS)

faults-quick: engines
	@$(BIN)/python -m faults --seconds 5 --together 8 $(FAULTS)

clean:
	rm -rf .venv $(LOWEST) $(TOOLS) .cache .mypy_cache .ruff_cache .hypothesis _trial_temp* build dist *.egg-info
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
	find . -name dropin.cache -delete
