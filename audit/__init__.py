"""What this package is made of: dependencies checked (`make audit`), and listed for machines (`make sbom`)."""
