"""The same requests through the mesh's built-in enforcement and through ours, and every difference between them.

`harness` runs the real Envoy with the built-in filters, `subject` is this service in the same place, `probe` is what is
asked, `outcome` what is compared.
"""
