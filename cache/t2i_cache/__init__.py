"""Similar-prompt latent cache: keys, records, stores, index and catalogue. Disposable: nothing needs it to be right."""
