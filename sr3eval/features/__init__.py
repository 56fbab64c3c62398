"""What metrics of whole sets look at: pretrained networks, and summaries of their features that add up."""
