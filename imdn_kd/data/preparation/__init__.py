"""Preparation of data sets (`imdn-kd prepare`): from source images to a store, folders or LMDBs."""
