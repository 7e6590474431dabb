CREATE TABLE orders (id bigserial PRIMARY KEY, status text NOT NULL, total numeric NOT NULL);
SELECT brain.watch('orders', 'orders', '{id,status,total}');
INSERT INTO orders (status, total) VALUES ('open', 10.50), ('open', 99), ('paid', 7);
