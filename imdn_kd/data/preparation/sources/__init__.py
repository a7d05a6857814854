"""Sources of images: folders, archives, published data sets, LMDBs, stores."""
