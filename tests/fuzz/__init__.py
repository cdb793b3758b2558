"""Whatever bytes come in: the laws of the data path, for a fuzzer and, with the kept corpus, for every run."""
