"""Writes results as one HTML file with images, captions, scores and curves, or as an image sheet.

    from paligemma_lib.report import Example, Report, Score, write_report

    report = Report(
        "Attention layers on Flickr8k",
        summary=["CIDEr rose from 12.1 to 87.4 on 1,000 images."],
        scores=[Score("CIDEr", 87.4, low=83.9, high=90.8, before=12.1)],
        examples=[Example("1.jpg", "Images/1.jpg", "a dog runs", references=["A dog runs ."])],
    )
    write_report("report.html", report)
    contact_sheet([("Images/1.jpg", "a dog runs")]).save("sheet.png")

The page is self-contained: it loads nothing and runs no script. All text is escaped, so captions
cannot inject markup. The package needs neither TensorFlow nor JAX.
"""

from paligemma_lib.report.content import (
    Alternative,
    Chart,
    Example,
    Line,
    ParameterGroup,
    Report,
    Score,
)
from paligemma_lib.report.page import render, write_report
from paligemma_lib.report.sheet import contact_sheet
from paligemma_lib.report.thumbnails import ImageLike

__all__ = [
    "Alternative",
    "Chart",
    "Example",
    "ImageLike",
    "Line",
    "ParameterGroup",
    "Report",
    "Score",
    "contact_sheet",
    "render",
    "write_report",
]
