"""A finished run, sweep or repeated result as one page that people look at, and in Markdown.

`read.py` opens the folder, `figures.py` draws, `page.py` puts it together by `page.html`. It reads
what a run wrote down and computes nothing that results.json doesn't hold."""

from kd_jax.html_report.page import write_report

__all__ = ["write_report"]
