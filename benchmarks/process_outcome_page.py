def tables(r):
    return ""


def page(r):
    return ""
