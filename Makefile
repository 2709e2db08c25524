# Each target sets up what it needs: a virtual environment in .venv with this project installed.
PYTHON ?= python3
BIN := .venv/bin

.PHONY: demo test test-slow check picture clean

demo: .venv/demo.stamp
	$(BIN)/unic demo

test: .venv/test.stamp
	$(BIN)/pytest -q -m "not slow"

test-slow: .venv/test.stamp
	$(BIN)/pytest -q -m slow

check: .venv/dev.stamp
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/pyright --pythonpath $(BIN)/python

picture:
	$(PYTHON) docs/draw_rooms.py

.venv/%.stamp: pyproject.toml
	test -d .venv || $(PYTHON) -m venv .venv
	$(BIN)/pip install -q -e '.[$*]'
	touch $@

clean:
	rm -rf .venv .pytest_cache .ruff_cache
