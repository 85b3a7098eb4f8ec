"""Which server rule finds the clients that belong together, on validation data?"""
