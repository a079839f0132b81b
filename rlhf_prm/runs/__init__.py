"""What every training recipe shares: its arguments, where its parts come from, and what a run leaves behind."""
