"""etcd and kube-apiserver on loopback, and a proxy that breaks what an operator hears from them."""
