"""The researcher's pages under /admin: how a study goes, who is to be paid, what is to be done."""
