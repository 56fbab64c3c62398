"""SR3: noise schedule, U-Net, loss, sampler, training; and the Regression model with the same U-Net."""
