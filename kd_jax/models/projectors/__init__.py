"""Projectors: small trained networks that bring a student's features to the teacher's width.

Together they are the knowledge mapping network (KMN) of the article. A new one is one line in
`PROJECTORS`."""
