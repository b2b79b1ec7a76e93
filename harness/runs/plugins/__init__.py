"""What pytest loads: the only place, beside conftest.py and the features' binder, that knows pytest."""
