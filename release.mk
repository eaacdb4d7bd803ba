# The release: sdist and wheel of what is committed, checked, and installed into an empty environment.
DIST := dist
EXPORT := .build/export

.PHONY: dist

dist: $(READY)  ## Build sdist and wheel of the last commit in dist/, check and try them
	rm -rf $(DIST) $(EXPORT) && mkdir -p $(DIST) $(EXPORT)
	git archive HEAD | tar -x -C $(EXPORT)
	cd $(EXPORT) && umask 022 && SOURCE_DATE_EPOCH=$$(git -C $(CURDIR) log -1 --format=%ct) EXTAUTHZ_EXTENSIONS=required \
	  $(CURDIR)/$(BIN)/python -m build --no-isolation --outdir $(CURDIR)/$(DIST) .
	$(BIN)/python tests/release/release_check.py $(DIST) --install
