"""Who a process is to the others: certificates that carry a name, who may call what, and how newcomers get theirs."""
