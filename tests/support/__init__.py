"""What tests share: servers, processes, the model of the laws, and readers of what the service did."""
