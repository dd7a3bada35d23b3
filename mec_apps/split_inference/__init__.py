"""The LFM application: edge node agents that run compiled stages, and the gateway that turns chats into frames for them."""
