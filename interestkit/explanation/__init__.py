"""Why a model says what it says, what would change it, and how far it can be believed."""
