"""The one loop and what it needs: optimiser, schedule, ranks, state."""
