"""Analysis of responses and scores with pandas: fool rates, figures, power, agreement of metrics with people.

    from analysis import figures, tables
    from analysis.exclusions import exclude
    from analysis.fool_rate import fool_rates

    responses = tables.load("responses.csv")
    kept, log = exclude(responses)
    rates = fool_rates(kept, by=["task", "model"])
    figures.save(figures.fool_rates(rates), "fool_rates.pdf")

Functions take DataFrames and return new ones; `by` names the columns that make groups. In the order of a study: power
and simulation plan it; tables reads and checks; exclusions says what counts; fool_rate, comparisons, viewing_time,
psychometric, signal_detection, image_rates, response_times, seeds and mixed_model (export_r: in R) estimate; preference
does so for choices between models, which simulated_choices plans and adaptive directs; pigeonhole is a check;
agreement sets metrics beside people, ceiling says how far people agree with one another, metric_agreement and
public_judgements score metrics on pairs and on others' data; summary gives all of it in two calls; methods writes
what a paper says of it; figures draws. The statistics are those of study_protocol.md, section 4.
"""
