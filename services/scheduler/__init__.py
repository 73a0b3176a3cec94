"""The scheduler decides when: campaigns, lanes, due posts, and what follows a hold."""
