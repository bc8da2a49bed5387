"""Which backend runs a call, and why: discovery by file name, selection by setting and by refusal in words."""
