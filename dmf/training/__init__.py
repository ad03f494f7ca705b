"""Training by the paper's recipe (section 4.1): `dmf-train` reads one TOML file and writes one run folder."""
