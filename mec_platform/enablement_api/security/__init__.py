"""Who may use the APIs: access tokens, the endpoint that issues them, and what every request is checked against."""
