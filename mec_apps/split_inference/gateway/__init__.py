"""The gateway: OpenAI API and gRPC in front, sessions that know every token, frames to the first stage behind."""
