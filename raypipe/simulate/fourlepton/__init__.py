"""Four leptons e+ e- mu+ mu-: hard process, parton shower, CMS-like response, selection, event table (paper B)."""
