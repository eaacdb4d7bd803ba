# What the package is made of. `make audit` needs the network for advisories only, and says so when it cannot ask.
.PHONY: audit sbom

audit: $(READY)  ## Check dependencies: versions, licences, files, imports, advisories (status 3: advisories not asked)
	$(BIN)/python -m audit

sbom: $(READY)  ## Write the software bill of materials (CycloneDX) to build/sbom.cdx.json
	$(BIN)/python -m audit --sbom build/sbom.cdx.json
