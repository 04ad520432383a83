"""How strong the tests are: the code is changed in one place, and some test has to fail."""
