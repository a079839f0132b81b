"""Building step labels: sampling, Monte-Carlo estimation, LLM-as-a-judge, consensus filtering."""
