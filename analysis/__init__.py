"""Analysis of responses and scores with pandas: fool rates, figures, power, agreement of metrics with people."""
