// HomeserverHTTP
