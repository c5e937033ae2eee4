"""What a paper is made of: systems timed beside each other, measures beyond retrieval, people's judgements."""
