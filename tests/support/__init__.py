"""What tests share: servers, processes, the model of the laws, and ways to look at what the service did."""
