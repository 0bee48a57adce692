"""Train policies with GPO losses over a β grid; place each by KL to the reference against gold reward."""
