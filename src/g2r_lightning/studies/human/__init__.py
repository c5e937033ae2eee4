"""Human evaluation: blinded sheets for raters, and what their answers say.

Who rates what: :mod:`design`. Items and their key: :mod:`export`, :mod:`key`. Sheets and page: :mod:`sheets`. Answers
and their faults: :mod:`import_`. Sensibleness, specificity, preference: :mod:`figures`. How far raters agree:
:mod:`agreement`. Raters made up, to plan a study or to test all of this: :mod:`simulation`.
"""
