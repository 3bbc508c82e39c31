"""An experiment from its config to results.json: plan, data sets made by models, models in order,
  report.

Below this room no function takes the config.
"""
