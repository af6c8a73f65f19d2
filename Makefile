# Every target does its own set-up: Python 3.10 or later, make and a package registry are enough.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed
COMPILED := .venv-compiled
# Dozens of tests start an interpreter: what was compiled once is kept.
export PYTHONDONTWRITEBYTECODE =

.PHONY: demo test check compat compiled bench notebooks dist fuzz chaos record format clean

$(INSTALLED): pyproject.toml integrations/langchain/pyproject.toml integrations/llama-index/pyproject.toml requirements-dev.txt constraints.txt
	$(PYTHON) -m venv $(VENV)
	@# An old pip takes twice as long, and most of what is installed is never imported.
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --upgrade pip
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-compile -c constraints.txt -r requirements-dev.txt
	@# They ask for openai<3, tenacity<9.2, python-dateutil<3 and vcrpy<9, and work with newer ones.
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-compile -c constraints.txt --no-deps \
		llama-index-llms-openai llama-index-llms-openai-like google-genai botocore langchain-tests
	touch $@

demo: $(INSTALLED)
	$(BIN)/adaptive-rate-limiter demo

test: $(INSTALLED)
	$(BIN)/coverage erase
	$(BIN)/coverage run -m pytest
	$(BIN)/coverage combine --quiet
	$(BIN)/coverage report

check: $(INSTALLED)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

# With the oldest and the newest releases of what is declared; each in an environment of its own.
compat: $(INSTALLED)
	$(BIN)/python -m tests.compat

# The wheel whose hot path is compiled, and the tests against it; it needs a C compiler.
compiled: $(COMPILED)/.installed
	$(COMPILED)/bin/python -m tests.compiled

# The wheel is made from the sdist, so that nothing compiled comes into src; whatever else is imported is that of .venv.
$(COMPILED)/.installed: $(INSTALLED) pyproject.toml $(shell find src -name '*.py')
	rm -rf $(COMPILED)
	$(PYTHON) -m venv $(COMPILED)
	HATCH_BUILD_HOOKS_ENABLE=1 $(BIN)/python -m build --outdir $(COMPILED)/dist .
	$(COMPILED)/bin/python -m pip install --quiet --disable-pip-version-check --no-deps $(COMPILED)/dist/*.whl
	$(BIN)/python -c "import sysconfig; print('import site; site.addsitedir(%r)' % sysconfig.get_path('purelib'))" \
		>"$$($(COMPILED)/bin/python -c "import sysconfig; print(sysconfig.get_path('purelib'))")/of-venv.pth"
	touch $@

bench: $(INSTALLED)
	@! command -v cc >/dev/null || $(MAKE) --no-print-directory $(COMPILED)/.installed
	$(BIN)/python -m benchmarks

# Run them all, and keep what they show; make notebooks ONLY=03 runs one.
notebooks: $(INSTALLED)
	$(BIN)/python -m notebooks $(ONLY)

# The three distributions, each wheel made from its sdist, tried where nothing else is installed.
dist: $(INSTALLED)
	rm -rf dist
	for project in . integrations/langchain integrations/llama-index; do \
		$(BIN)/python -m build --outdir dist $$project || exit; done
	$(PYTHON) -m venv dist/venv
	dist/venv/bin/python -m pip install --quiet --disable-pip-version-check -c constraints.txt \
		dist/*.whl "$$(ls dist/adaptive_rate_limiter-*.whl)[http,testing]"
	cd dist && venv/bin/python ../tests/smoke.py

fuzz: $(INSTALLED)
	HYPOTHESIS_PROFILE=fuzz $(BIN)/python -m pytest tests/providers/test_provider_fuzz.py \
		tests/redis/test_redis_differential.py --timeout=0 --durations=0

# Five minutes of faults: a cluster, killed, paused, flushed, failed over, resharded and cut, under load.
chaos: $(INSTALLED)
	$(BIN)/python -m tests.chaos

# A response of a real provider, as a cassette: make record PROVIDER=groq [CASE=stream] [MODEL=...] [BASE_URL=...]
record: $(INSTALLED)
	@$(BIN)/python -m tests.recording "$(PROVIDER)" $(if $(CASE),--case "$(CASE)") $(if $(MODEL),--model "$(MODEL)") \
		$(if $(BASE_URL),--base-url "$(BASE_URL)")

format: $(INSTALLED)
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

clean:
	rm -rf $(VENV) $(COMPILED) .compat-* .coverage* .mypy_cache .pytest_cache .ruff_cache
