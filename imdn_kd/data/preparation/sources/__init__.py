"""Where HR images come from: folders, archives, published data sets, LMDBs, stores."""
