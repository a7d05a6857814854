"""`imdn-kd prepare`: from source images to a training set."""
