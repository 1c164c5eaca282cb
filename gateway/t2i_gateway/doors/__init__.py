"""The HTTP doors: requests and answers in the shape of the OpenAI Images API, beside gRPC on the same intake."""
