"""What choosing a backend costs, call by call, apart from the backend and from the checks of arguments."""
