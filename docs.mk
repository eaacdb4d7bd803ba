# The documentation: written from the program where it can be, built as a site that fails on a broken link.
.PHONY: docs docs-cli docs-check

docs: $(READY)  ## Build the documentation as a site in build/site; a broken link is an error
	$(BIN)/python -m sphinx --builder html --fail-on-warning --keep-going --quiet --nitpicky \
	  --doctree-dir build/doctrees docs build/site
	@echo "build/site/index.html"

docs-check: $(READY)  ## Run every command of the documentation
	$(BIN)/python -m pytest -n $(WORKERS) -q tests/docs

docs-cli: $(READY)  ## Write docs/cli.md from the program
	$(BIN)/python docs/generate_cli.py
